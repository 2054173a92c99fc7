"""Tasks: what "good" means for a network. One file a task; importing one registers it."""
