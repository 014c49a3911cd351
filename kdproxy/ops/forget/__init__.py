"""`forget`: choosing samples, and the tombstones that withdraw them."""
