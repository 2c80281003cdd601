"""The server: pages for people, a JSON API, and GA4GH TES, over any pool."""
