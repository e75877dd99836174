"""The pure part of statistics: what an entry changes in the figures, and how volume climbs a tree."""
