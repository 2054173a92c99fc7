"""What a run leaves on disk: its folder, its journal, and the front that these add up to."""
