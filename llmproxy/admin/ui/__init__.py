"""The page at ``/ui``: plain files for a browser, and how they are served."""
