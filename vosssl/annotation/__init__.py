"""Annotating video: a project over click and track, a page that shows it."""
