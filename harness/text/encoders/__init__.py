"""Text encoders: texts become embedding matrices. One module an encoder."""
