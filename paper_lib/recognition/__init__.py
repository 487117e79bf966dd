"""From clips to answers: features, head, fine-tuning, recipes, experiments."""
