"""How far virtual time is from real time: the same requests in both, and where the difference comes from."""
