"""What a model's queue and workers ask for: the looks that scaling decides by."""
