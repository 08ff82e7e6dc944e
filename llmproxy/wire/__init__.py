"""The wire formats of the APIs, and the vocabulary of the program: frozen data and pure functions."""
