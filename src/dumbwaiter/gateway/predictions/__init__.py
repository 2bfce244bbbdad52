"""The predictions API: what a caller asks for, waiting for it, keeping it, following it, cancelling it."""
