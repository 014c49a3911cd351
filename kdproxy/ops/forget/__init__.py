"""`forget`: which samples are meant, and the tombstones that withdraw them."""
