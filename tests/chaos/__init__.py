"""`make chaos`: a fleet of jobs while a seeded monkey kills, stops and cuts, then every promise checked from outside."""
