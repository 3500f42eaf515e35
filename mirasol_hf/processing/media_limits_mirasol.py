"""What a media file may cost, and how reading says that something is wrong."""

from dataclasses import dataclass


class MediaError(ValueError):
    """A file cannot be used; the message names the file and the cause."""


class MediaWarning(UserWarning):
    """A file can be used in part; the message names the file and what is missing."""


# Demuxers of real media. Everything that opens other files or addresses by itself (playlists, scripts, session
# descriptions, numbered images, subtitle indexes) and everything that renders text as video is absent on purpose.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,nut,rm,dv,ivf,"
    "yuv4mpegpipe,h264,hevc,vvc,m4v,obu,av1,h263,h261,vc1,vc1test,mjpeg,gif,apng,"
    "png_pipe,jpeg_pipe,jpegls_pipe,jpegxl_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe,"
    "wav,w64,aiff,au,caf,flac,mp3,aac,ac3,eac3,dts,amr,amrnb,amrwb,ape,wv,tta,tak,voc,truehd,gsm,loas,latm,opus"
)


@dataclass(frozen=True)
class MediaLimits:
    """Bounds that hold while one file is read; anything beyond them is an error or, where data is left, a warning.

    Attributes:
        max_pixels: pixels of one picture (the default admits 8K video).
        max_streams: streams of one file.
        max_channels: channels of the sound.
        min_sampling_rate: samples per second of the sound, lower bound.
        max_sampling_rate: samples per second of the sound, upper bound.
        max_duration: seconds between the first and the last instant of the file.
        max_packets: packets of the chosen streams, and samples that the header of an mp4 may announce.
        max_idle_packets: packets in a row that give nothing, after which a stream is given up.
        max_expansion: how many times larger than the file its unpacked sound may be (past the first 256 MB), at its
            own rate or at the model's, whichever is more.
        max_boxes: boxes of an mp4 file that are looked at before it is opened.
        max_box_depth: nesting of these boxes.
        max_empty_bytes: zeros in a row that are searched for the next packet, as the holes of sparse files give them;
            after more the file counts as ended.
        max_stream_bytes: bytes of a file object that cannot seek and is not read chunk by chunk (or is an mp4 whose
            header comes last); they are kept in a temporary file.
        max_header_bytes: bytes of one header box of an mp4 that comes through a pipe, which is held in memory.
        max_skew: seconds by which pictures or sound of a stream may come later than the other before a chunk is
            given without them.
        max_idle_chunks: chunks, in all, that begin more than `max_skew` seconds after anything new was seen or heard;
            each costs as much as if something were.
        max_seconds: wall-clock seconds for reading one file; a TimeoutError ends it. Where chunks are read one by one
            it holds for each, and waiting for a pipe does not count.
        max_threads: decoding threads for large pictures, never more than cores; the result does not depend on it.
        allow_urls: whether http and https addresses are read; all others never are. The whole file is fetched first.
        max_url_bytes: bytes that come in from one address, with all that is sent around its body.
        max_url_seconds: wall-clock seconds for all of it, from the look-up of the name on; a TimeoutError ends it.
        max_redirects: how often an address may lead to another one.
        formats: names of the demuxers that may be used, separated by commas.
    """

    max_pixels: int = 36_000_000
    max_streams: int = 100
    max_channels: int = 64
    min_sampling_rate: int = 1000
    max_sampling_rate: int = 768_000
    max_duration: float = 172_800.0
    max_packets: int = 10_000_000
    max_idle_packets: int = 20_000
    max_expansion: float = 10_000.0
    max_boxes: int = 1_000_000
    max_box_depth: int = 16
    max_empty_bytes: int = 2**25
    max_stream_bytes: int = 2**28
    max_header_bytes: int = 2**26
    max_skew: float = 10.0
    max_idle_chunks: int = 3600
    max_seconds: float = 900.0
    max_threads: int = 8
    allow_urls: bool = False
    max_url_bytes: int = 2**30
    max_url_seconds: float = 120.0
    max_redirects: int = 5
    formats: str = _FORMATS


def too_many_idle_chunks(limits: MediaLimits, seconds: float) -> str:
    """The cause of an error: `max_idle_chunks` is exceeded by chunks of so many seconds."""
    most = f"MediaLimits.max_idle_chunks={limits.max_idle_chunks}"
    return f"no new picture and no sound comes in more than {most} chunks of {seconds:g} s; longer chunks are fewer"
