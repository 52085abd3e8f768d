"""What holds for all tests."""

import hypothesis

# No test asserts how quick it is: on a crowded machine any example may take as long as it likes.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
