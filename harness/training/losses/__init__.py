"""How states and targets become a number to minimise. One file a loss."""
