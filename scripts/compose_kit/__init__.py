"""docker-compose.yml played by hand, with the same servers outside containers; `scripts/compose-by-hand` calls it."""
