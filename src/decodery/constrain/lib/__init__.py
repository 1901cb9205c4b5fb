"""What several constraints share."""
