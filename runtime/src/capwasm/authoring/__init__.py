"""What plugin authors are served with: projects, builders for each language, templates."""
