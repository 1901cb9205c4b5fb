"""Changes of a loaded model: one file each."""
