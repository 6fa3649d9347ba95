"""The maths that is compared across papers."""
