"""From a recipe to an answer: the loop and what surrounds it."""
