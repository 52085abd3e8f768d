"""Pictures of loads, decisions and profiles: one file a picture, drawn with matplotlib (`[plot]`), which loads late."""
