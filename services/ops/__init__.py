"""The ops service: programs, the raw log, and the projections made from it. It learns of the other services only what they register."""
