"""Private behaviour of Pillow."""

from PIL.JpegImagePlugin import JpegImageFile


def ignore_resolution() -> None:
    """Keep Pillow from reading a JPEG's resolution from EXIF: it refuses the image if that is a BYTE."""
    JpegImageFile._read_dpi_from_exif = lambda self: None
