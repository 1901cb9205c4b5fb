"""Looking at models, machines and answers."""
