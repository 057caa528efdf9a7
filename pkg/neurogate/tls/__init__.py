"""Certificates: read and checked as a whole, handed to listeners and channels, and read again when they change."""
