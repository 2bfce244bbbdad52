"""Models: the user's plain class behind codecs chosen by its annotations and by content type."""
