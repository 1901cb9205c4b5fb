"""The language of Decodery: values, laws, trees, roles."""
