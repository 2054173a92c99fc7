"""The `.lil` file: context models, range coder, container. Needs numpy and constriction only."""
