"""What several changes share."""
