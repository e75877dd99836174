"""Fenrun's services: `kernel` is shared and pure, `runtime` shared and effectful, the rest are the services."""
