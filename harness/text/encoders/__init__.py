"""Text encoders: turn texts into embedding matrices. One module per encoder."""
