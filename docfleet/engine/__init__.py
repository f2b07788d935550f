"""What turns pages into text: an interface, and one folder for each engine."""
