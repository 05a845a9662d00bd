"""Every default and limit of ImpChat, once. Front ends, engines and the history read them here.

In: nothing. Out: constants, with their units in their names. This file imports nothing of ImpChat.
"""

from __future__ import annotations

OWNER = "local"  # the owner of conversations where nobody logs in
HOST = "127.0.0.1"  # loopback: nobody else reaches the page unless asked for
PORT = 7860
SERVE_PORT = 7861
LISTEN = "0.0.0.0"  # all addresses of this machine, where --listen names none
DEFAULT_MODEL = "imp-v1.5-3b-196"  # the family member recommended to everyone
DEMO_MODEL = "imp-demo-196"  # the bundled one

# Sampling. 0.2 is what Imp's own demo page uses for pictures; a manifest may say otherwise for its model.
TEMPERATURE = 0.2
TOP_K = 40
TOP_P = 0.95
MIN_P = 0.05
REPEAT_PENALTY = 1.0
MAX_TOKENS = 512
SAMPLING_RANGES: dict[str, tuple[float, float]] = {  # what a person may choose, both ends included
    "temperature": (0.0, 2.0),
    "top_k": (0, 1000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.5, 2.0),
    "seed": (0, 2**32 - 2),  # llama.cpp takes 2**32 - 1 for "choose one"
    "max_tokens": (1, 8192),
}

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

# Bundles that `impchat convert` makes
LANGUAGE_TYPES = ("f16", "q8_0", "q4_k_m", "q4_0", "q4")
VISION_TYPES = ("fp32", "fp16", "int8")
CONVERT_FORMATS = ("bundle", "mmproj", "hf")  # the first one where nobody asks for another
LANGUAGE_TYPE = "q4"  # of the language file, where nobody asks for another
LANGUAGE_4BIT = "q4_k_m"  # what "q4" means: an eighth larger than q4_0, and nearer to the source
VISION_TYPE = "int8"

# Downloads
DOWNLOAD_TIMEOUT_S = 30.0  # without a single byte
DOWNLOAD_RETRIES = 5  # connections in a row that break before any byte comes
DOWNLOAD_RETRY_S = 1.0  # between two of them

# What a conversion is refused, or marked as unverified, below (models/convert/verify.py says what is measured)
VERIFY_COSINE = 0.99  # of a patch's embedding with the checkpoint's, on average; 8-bit eyes below it become 16-bit ones
VERIFY_COSINE_LEAST = 0.9  # of the worst patch
VERIFY_SURE = 0.5  # the checkpoint is sure of a token that it finds at least so likely
# Share of these that the bundle gives too. Small random models lose far more by 4 bits than trained ones, which all but
# keep it (the demo: 1.0); a wrong conversion keeps next to nothing.
VERIFY_AGREEMENT = {"f16": 0.98, "q8_0": 0.95, "q4_k_m": 0.4, "q4_0": 0.4}
VERIFY_TRAINED = 1.5  # times the largest singular value that random numbers would have, squared
# Right answers: most nats for each token, most for the end, least that wrong ones cost more. Random weights: 7 or more.
VERIFY_ANSWERS = (2.5, 2.5, 1.0)
VERIFY_DEMO_ANSWERS = (0.2, 0.5, 3.0)
VERIFY_CLEARLY = 0.3  # nats for each token by which one way to write or show a question must beat another to be named

# Engine
CONTEXT_TOKENS = 2048  # per conversation; Phi-2 was pretrained at 2048
SLOTS = 2  # conversations whose KV cache is kept and that may run at once
# A step of a smaller model takes less time than threads need to wait for each other: with a second thread on a machine
# that has other work to do, the demo is many times slower (docs/benchmarks.md).
SMALL_MODEL_BYTES = 64 * 1024 * 1024
BATCH_TOKENS = 512  # most tokens in one llama_decode; above n_batch llama.cpp ends the process
PREFILL_CHUNK_TOKENS = 64  # a prompt is read in such steps, with news of the progress behind each
PREFILL_SHARED_TOKENS = 16  # in such steps while answers run: theirs is the token between two steps
CONTEXT_DROP = 0.25  # share of the context freed at once when a conversation outgrows it
TOKEN_CHARS = 128  # no token is longer
ANSWER_LEAST_TOKENS = 32  # a prompt that leaves less of the context than this for its answer is refused
PENALTY_TOKENS = 64  # the repeat penalty looks back so far
GPU_LAYERS = 999  # where there is a GPU: all of them
REPACK_WEIGHTS = False  # llama.cpp's second, faster copy of 4-bit weights: slow to load, twice the memory
EMBEDDING_CACHE = 32  # pictures whose embeddings stay in memory

# A server that answers in place of a model here
REMOTE_CONNECT_S = 6.0  # an address that takes longer to take a connection is not there
REMOTE_SILENCE_S = 300.0  # without a single byte; a large model on a processor reads a long prompt that long
REMOTE_RETRIES = 3  # of a request that failed before the first byte of its answer
REMOTE_RETRY_S = 0.5  # before the first of them, twice as long before each later one
REMOTE_WAIT_S = 20.0  # a server that asks for more patience is told of instead
REMOTE_IDLE = 4  # connections kept open for the next question
REMOTE_IMAGE_SIDE = 1024  # longest side of a picture that is sent; small print stays readable
REMOTE_IMAGES_BYTES = 64 * 1024 * 1024  # of pictures kept ready to be sent again
REMOTE_IMAGE_TOKENS = 576  # taken for those of a picture where the server does not say: LLaVA-1.5's
REMOTE_PROBE_S = 10.0  # a server that does not say what it is within this time is asked its question anyway
REMOTE_REPLY_BYTES = 4 * 1024 * 1024  # most that is read of a reply, or of one event in a stream
REMOTE_STOP_STRINGS = 4  # OpenAI takes no more; all are looked for here as well

# Pictures
IMAGE_BYTES = 64 * 1024 * 1024  # largest file taken
IMAGE_PIXELS = 120_000_000  # largest picture decoded: 360 MB
# Phones make photos of 200 megapixels. A JPEG of one scan is decoded at a quarter of its sides or less: 50 MB.
JPEG_PIXELS = 250_000_000
IMAGE_PROFILE_BYTES = 8 * 1024 * 1024  # largest colour profile read; printers' have 1 to 3 MB
IMAGE_STORED_SIDE = 2048  # longest side kept
IMAGE_JPEG_QUALITY = 92
IMAGES_PER_MESSAGE = 8
THUMBNAIL_SIDE = 320

# Server
QUEUE_REQUESTS = 64  # being answered or waiting at once; the next one is told to come again
REQUEST_BYTES = 96 * 1024 * 1024  # largest request; pictures in it are a third larger than their files
REQUESTS_BYTES = 512 * 1024 * 1024  # of all requests that are open; the next one is told to come again
STRANGER_BYTES = 1024 * 1024  # largest request of one who shows no token where one is needed: it asks to be paired
BODY_SILENCE_S = 30.0  # a client that sends nothing of its request for so long is cut off
BODY_LEAST_BYTES_S = 4 * 1024  # and so is one that, after that time, has sent less than this in each second
SEND_S = 60.0  # a client that takes nothing of its stream for so long is cut off
# Of a request, before anything is tokenised. A token is about four characters of English and may be a hundred spaces;
# what does not fit into the context is left out or refused by the count of its tokens.
MESSAGES = 10_000
BODY_VALUES = 100_000  # brackets, braces and commas of a JSON body: reading more would hold up every other thread
MESSAGE_CHARS = 256 * 1024
REQUEST_CHARS = 1024 * 1024  # of all messages
PICTURES_AT_ONCE = 2  # decoded for all requests together; a large one takes hundreds of megabytes meanwhile
STOP_STRINGS = 16
STOP_CHARS = 1000  # of each
SPOKEN_KEPT = 512  # latest answers whose token ids are remembered for a request that gives them back
CERTIFICATE_DAYS = 20 * 365  # a new one would mean that every device is paired anew
PAIR_WAIT_S = 5.0  # for each address of a link
DISCOVER_S = 3.0  # how long a device listens for servers around it
DISCOVER_AGAIN_S = 1.0  # between its questions
DISCOVER_MOST = 20  # servers, and addresses of each: a stranger may make up any number
PAIR_CODE_CHARS = 8
PAIR_CODE_S = 300  # how long a one-time code lives
PAIR_TRIES = 5  # wrong codes before the right one is void too
DEVICE_NAME_CHARS = 60
FETCH_S = 15.0  # for a picture from an http(s) address, all its redirects included
FETCH_REDIRECTS = 3
SSE_PING_S = 10.0  # a stream that is silent so long sends a comment, so that nobody in between closes it

# History
FLUSH_S = 0.5  # a streaming answer is on disk at least this often
HEARTBEAT_S = 5.0  # a writer shows at least this often that it lives
HEARTBEAT_DEAD_S = 15.0  # a streaming message of another machine's writer counts as dead after this silence
ANSWERS_KEPT = 64  # ended answers whose numbered events stay in memory for readers that come back
TITLE_CHARS = 60
QUESTION_CHARS = 16_000
DRAFT_BYTES = 4_000_000  # of a text that is kept while it is typed; it may be longer than a question until it is sent
LIST_COUNT = 50  # conversations that `impchat history list` shows
BUSY_TIMEOUT_S = 10.0  # how long a write waits for another process's lock
QUERY_CHARS = 500  # of a search that are read; no phrase anybody looks for is longer
IMPORT_BYTES = 512 * 1024 * 1024  # largest conversation taken in from a zip, unpacked
IMPORT_INDEX_BYTES = 64 * 1024 * 1024  # of these, without the pictures

# Cluster
CLUSTER_REPLICAS = (2, 2)  # at least and at most, where nobody says
CLUSTER_REPLICA_REQUESTS = 4  # that a replica has at once; the next goes to another one (docs/scaling.md)
CLUSTER_NEIGHBOURS = 8  # that are tried where its own replica is full; then it waits for one of them
CLUSTER_REPLICA_BUSY = 2.0  # on average, in each: with more, there is another replica
CLUSTER_UPSCALE_S = 10.0  # a queue that stays so long gets one more replica
CLUSTER_DOWNSCALE_S = 600.0  # conversations move where a replica leaves, so none leaves at once
CLUSTER_CHECK_S = 2.0  # so often each replica is looked after; one that is gone gets a successor then
CLUSTER_TRIES = 3  # replicas that one prompt may see die

# Doctor
DISK_LOW_BYTES = 1_000_000_000  # less free disk than this is worth a warning
MEMORY_BESIDE_MODEL_BYTES = 600_000_000  # the eyes' work space and the program itself
MEMORY_BESIDE_UNPACKED_BYTES = 250_000_000  # the same with unpacked eyes (docs/benchmarks.md, "Memory on a phone")

# App lock
PIN_DIGITS = (4, 12)  # fewest and most
PIN_ROUNDS = 300_000  # of the hash: about a third of a second on a phone
PIN_TRIES = 5  # wrong ones before a pause
PIN_PAUSE_S = 30  # the first one; each next is twice as long
PIN_PAUSE_MOST_S = 3600
LOCK_AFTER_S = 60  # out of sight; a picture is chosen in less

# Speed test, the protocol of the paper's table
SPEED_ANSWER_TOKENS = 64

# Phone
MOBILE_PORT = 7862  # of `impchat mobile`, the app in a browser
MOBILE_UPDATE_S = 0.05  # between two updates of a growing answer: at most 20 a second
MOBILE_SLOTS = 1  # one conversation at a time: half the memory for the KV cache
MOBILE_MESSAGES = 100  # shown at once; earlier ones on request
MOBILE_RETURN_S = 3600  # the conversation left so short ago is open again at the next start
MOBILE_MEMORY_LOW_BYTES = 250_000_000  # less free memory than this unloads a model that does nothing
MOBILE_MEMORY_CHECK_S = 5.0
MOBILE_CONTEXTS = (512, 1024, 1536, 2048, 3072, 4096)  # a person may choose, as far as the model was made for
