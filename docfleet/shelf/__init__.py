"""Finished pages of the page stage, kept on disk for whoever reads the same document next."""
