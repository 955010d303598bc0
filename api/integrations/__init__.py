"""A process of its own that writes metrics with the tracking services' libraries. It knows no job, no row, no tenant."""
