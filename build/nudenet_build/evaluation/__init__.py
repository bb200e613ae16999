"""How engines and precisions are compared."""
