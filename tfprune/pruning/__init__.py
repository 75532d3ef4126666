"""Which channels go, and how: criteria, masks, surgery, rewinding."""
