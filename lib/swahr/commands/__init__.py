"""The commands of `swahr` and of tools/, one module each."""
