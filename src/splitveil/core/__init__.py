"""What every part needs and that needs no part: errors, records, registries, progress. No torch."""
