"""The search engine: many candidates, cheap rungs before dear ones, figures that are measured."""
