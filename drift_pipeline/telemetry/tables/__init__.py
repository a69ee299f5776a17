"""Tables: any file, folder, frame, tensor or event as canonical columns, the same for the same content."""
