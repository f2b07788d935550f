"""Runs in the API process, beside the doors: returns what dead workers held, and tidies up."""
