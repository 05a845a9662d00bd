"""Every default and limit of ImpChat, defined once for front ends, engines and the history.

In: nothing. Out: constants, with their units in their names. This file imports nothing of ImpChat.
"""

from __future__ import annotations

OWNER = "local"  # the owner of conversations when there is no login
HOST = "127.0.0.1"  # loopback: other machines cannot reach the page by default
PORT = 7860
SERVE_PORT = 7861
LISTEN = "0.0.0.0"  # for --listen without an address: all addresses of this machine
DEFAULT_MODEL = "imp-v1.5-3b-196"  # the recommended model of the family
DEMO_MODEL = "imp-demo-196"  # comes with the package

# Sampling. 0.2 is the temperature of Imp's own demo page; a model's manifest may set other values.
TEMPERATURE = 0.2
TOP_K = 40
TOP_P = 0.95
MIN_P = 0.05
REPEAT_PENALTY = 1.0
MAX_TOKENS = 512
SAMPLING_RANGES: dict[str, tuple[float, float]] = {  # allowed values, both ends included
    "temperature": (0.0, 2.0),
    "top_k": (0, 1000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.5, 2.0),
    "seed": (0, 2**32 - 2),  # 2**32 - 1 means "random" to llama.cpp
    "max_tokens": (1, 8192),
}

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

# Bundles that `impchat convert` makes
LANGUAGE_TYPES = ("f16", "q8_0", "q4_k_m", "q4_0", "q4")
VISION_TYPES = ("fp32", "fp16", "int8")
CONVERT_FORMATS = ("bundle", "mmproj", "hf")  # the first one is the default
LANGUAGE_TYPE = "q4"  # default type of the language file
LANGUAGE_4BIT = "q4_k_m"  # the meaning of "q4": an eighth larger than q4_0, and closer to the original
VISION_TYPE = "int8"

# Downloads
DOWNLOAD_TIMEOUT_S = 30.0  # without any byte received
DOWNLOAD_RETRIES = 5  # consecutive connections that break before any byte is received
DOWNLOAD_RETRY_S = 1.0  # pause between two of them

# Limits below which a conversion is rejected or marked as unverified (models/convert/verify.py defines the measures)
VERIFY_COSINE = 0.99  # mean over patches, to the checkpoint's embeddings; an int8 vision file below it becomes fp16
VERIFY_COSINE_LEAST = 0.9  # the same for the worst patch
VERIFY_SURE = 0.5  # the checkpoint is sure of a token with at least this probability
# Share of these tokens that the bundle predicts too. 4 bits cost small random models far more than trained ones, which
# lose almost nothing (the demo: 1.0); a wrong conversion is near 0.
VERIFY_AGREEMENT = {"f16": 0.98, "q8_0": 0.95, "q4_k_m": 0.4, "q4_0": 0.4}
VERIFY_TRAINED = 1.5  # times the square of the largest singular value that random numbers would have
# Correct answers: maximum nats per token, maximum for the end, minimum by which wrong answers cost more. Random weights
# have 7 or more.
VERIFY_ANSWERS = (2.5, 2.5, 1.0)
VERIFY_DEMO_ANSWERS = (0.2, 0.5, 3.0)
VERIFY_CLEARLY = 0.3  # nats per token by which one prompt format must beat another to be reported

# Engine
CONTEXT_TOKENS = 2048  # per conversation; Phi-2 was pretrained at 2048
SLOTS = 2  # conversations that are kept in the KV cache and can run at the same time
# A step of a smaller model takes less time than the synchronisation of threads: with a second thread on a busy machine,
# the demo is many times slower (docs/benchmarks.md).
SMALL_MODEL_BYTES = 64 * 1024 * 1024
BATCH_TOKENS = 512  # maximum tokens in one llama_decode; above n_batch llama.cpp ends the process
# A step reads as many prompt tokens as take this long at the speed of the latest steps: large chunks are read
# faster, but a new request waits for the end of the step, and running answers get one token per step.
PREFILL_STEP_S = 1.5  # while nothing else runs; progress is reported after each step
PREFILL_SHARED_STEP_S = 0.6  # while answers run
PREFILL_FIRST_TOKENS = 64  # until a speed is known
PREFILL_LEAST_TOKENS = 16  # in a step, however slow the machine is
# llama.cpp's flash attention on a CPU has its fast path only for 64 and more tokens at once, and slows generation down
# as the conversation grows (docs/benchmarks.md).
FLASH_ATTENTION = False
# In one buffer for all conversations, every token attends to the cells of the others too, only to discard the result.
UNIFIED_CACHE = False
CONTEXT_DROP = 0.25  # share of the context freed at once when a conversation exceeds it
TOKEN_CHARS = 128  # maximum length of a token
ANSWER_LEAST_TOKENS = 32  # a prompt that leaves fewer tokens of the context for its answer is rejected
PENALTY_TOKENS = 64  # latest tokens that the repeat penalty counts
GPU_LAYERS = 999  # if there is a GPU: all layers
REPACK_WEIGHTS = False  # a copy of the weights in an order that suits the processor: takes memory and time to load
PACK_VISION = True  # the same for the vision file
EMBEDDING_CACHE = 32  # pictures whose embeddings stay in memory
EMBEDDINGS_BYTES = 512 * 1024 * 1024  # of pictures' embeddings on disk: 2 MB for a picture of Imp-3B@196
KV_STATES_BYTES = 2 * 1024 * 1024 * 1024  # of KV states on disk: 0.33 MB for a token of Imp-3B
KV_STATE_IDLE_S = 2.0  # without work for this long, conversations that have changed are saved
KV_STATE_LEAST_TOKENS = 32  # a state that saves reading fewer is not loaded (docs/benchmarks.md)

# Tuning: `impchat doctor --tune` measures a question in a conversation that has a picture
TUNE_DEPTH = 350  # tokens before it: the system text, a picture of 196 positions, a question and an answer
TUNE_READ_TOKENS = 50
TUNE_READ_WEIGHT = 2  # reading counts twice: nothing is shown meanwhile, and pictures are read in the same way
TUNE_ANSWER_TOKENS = 64
TUNE_GENERATED_TOKENS = 8  # of those, measured in each round
TUNE_ROUNDS = 5
TUNE_DROP = 1.2  # a combination slower than the best one by this factor is measured in two rounds only
TUNE_MARGIN = 1.05  # the default, or the combination that takes less memory, stays unless another gains this factor

# Remote servers
REMOTE_CONNECT_S = 6.0  # timeout for connecting to an address
REMOTE_SILENCE_S = 300.0  # timeout without any byte received; a large model on a CPU reads a long prompt for minutes
REMOTE_RETRIES = 3  # of a request that failed before the first byte of its answer
REMOTE_RETRY_S = 0.5  # pause before the first retry, doubled before each later one
REMOTE_WAIT_S = 20.0  # a server that asks for a longer pause before a retry is reported as an error
REMOTE_IDLE = 4  # connections kept open for the next question
REMOTE_IMAGE_SIDE = 1024  # longest side of a picture that is sent, in pixels; small print stays readable
REMOTE_IMAGES_BYTES = 64 * 1024 * 1024  # cache of pictures that may be sent again
REMOTE_IMAGE_TOKENS = 576  # assumed per picture if the server does not report it: LLaVA-1.5's
REMOTE_PROBE_S = 10.0  # timeout for probing; after it, the question is sent anyway
REMOTE_REPLY_BYTES = 4 * 1024 * 1024  # maximum size of a response, or of one event in a stream
REMOTE_STOP_STRINGS = 4  # OpenAI's limit; the client checks for all stop strings itself as well

# Pictures
IMAGE_BYTES = 64 * 1024 * 1024  # largest file accepted
IMAGE_PIXELS = 120_000_000  # largest picture decoded: 360 MB
# Phones take photos of 200 megapixels. A JPEG of one scan is decoded at a quarter of its sides or less: 50 MB.
JPEG_PIXELS = 250_000_000
IMAGE_PROFILE_BYTES = 8 * 1024 * 1024  # largest colour profile read; those of printers have 1 to 3 MB
IMAGE_STORED_SIDE = 2048  # longest side of a stored picture, in pixels
IMAGE_JPEG_QUALITY = 92
IMAGES_PER_MESSAGE = 8
EDITS = 32  # of one picture: rotations, crops and marks
STROKE_POINTS = 2000  # of a freehand line drawn into a picture
THUMBNAIL_SIDE = 320
THUMBNAILS_KEPT = 512  # in memory

# Tables of answers
TABLE_THUMBNAIL_SIDE = 128

# Server
QUEUE_REQUESTS = 64  # running or waiting at the same time; further requests get status 429
REQUEST_BYTES = 96 * 1024 * 1024  # largest request; base64 makes pictures a third larger than their files
REQUESTS_BYTES = 512 * 1024 * 1024  # of all open requests together; beyond that, status 429
STRANGER_BYTES = 1024 * 1024  # largest request without the token that is needed, such as a pairing request
BODY_SILENCE_S = 30.0  # a client that sends no byte of its request body for this long is refused
BODY_LEAST_BYTES_S = 4 * 1024  # minimum mean rate after that time, in bytes per second
SEND_S = 60.0  # a client that reads nothing of its stream for this long is cut off
# Limits of a request, checked before tokenising. A token is about four characters of English, but may be a hundred
# spaces; prompts that exceed the context are truncated or rejected later, by their number of tokens.
MESSAGES = 10_000
BODY_VALUES = 100_000  # brackets, braces and commas of a JSON body: parsing more would block every other thread
MESSAGE_CHARS = 256 * 1024
REQUEST_CHARS = 1024 * 1024  # of all messages
PICTURES_AT_ONCE = 2  # decoded at the same time, over all requests; a large one takes hundreds of megabytes
STOP_STRINGS = 16
STOP_CHARS = 1000  # of each
SPOKEN_KEPT = 512  # latest answers whose token ids are kept for later requests that send them back
CERTIFICATE_DAYS = 20 * 365  # long, because with a new certificate every device must be paired again
PAIR_WAIT_S = 5.0  # timeout for each address of a link
DISCOVER_S = 3.0  # how long a device waits for answers of servers
DISCOVER_AGAIN_S = 1.0  # between two queries
DISCOVER_MOST = 20  # servers, and addresses per server: answers are untrusted and could contain any number
PAIR_CODE_CHARS = 8
PAIR_CODE_S = 300  # validity of a one-time code
PAIR_TRIES = 5  # wrong codes after which the right one is invalid too
DEVICE_NAME_CHARS = 60
FETCH_S = 15.0  # for a picture from an http(s) URL, including redirects
FETCH_REDIRECTS = 3
SSE_PING_S = 10.0  # a stream silent for this long sends a comment, so that no proxy closes it

# History
FLUSH_S = 0.5  # maximum time between two saves of a streaming answer
HEARTBEAT_S = 5.0  # maximum time between two heartbeats of a writer
HEARTBEAT_DEAD_S = 15.0  # a writer on another machine counts as dead after this time without a heartbeat
ANSWERS_KEPT = 64  # finished answers whose numbered events stay in memory for readers that reconnect
TITLE_CHARS = 60
UNDO_S = 3600  # how long a deleted message is kept at least, for an undo
QUESTION_CHARS = 16_000
DRAFT_BYTES = 4_000_000  # maximum size of a saved draft, which may be longer than a question until it is sent
LIST_COUNT = 50  # conversations that `impchat history list` shows
BUSY_TIMEOUT_S = 10.0  # how long a write waits for another process's lock
QUERY_CHARS = 500  # a longer search query is cut
IMPORT_BYTES = 512 * 1024 * 1024  # largest conversation that can be imported from a zip, unpacked
CHATGPT_JSON_BYTES = 256 * 1024 * 1024  # largest conversations.json; parsed, it takes several times as much memory
IMPORT_INDEX_BYTES = 64 * 1024 * 1024  # the same without the pictures

# Cluster
CLUSTER_REPLICAS = (2, 2)  # default minimum and maximum
CLUSTER_REPLICA_REQUESTS = 4  # concurrent requests per replica; further ones go to another replica (docs/scaling.md)
CLUSTER_NEIGHBOURS = 8  # other replicas to try if a conversation's own is full; then the request waits for any of them
CLUSTER_REPLICA_BUSY = 2.0  # target of requests per replica; with more, a replica is added
CLUSTER_UPSCALE_S = 10.0  # a replica is added after this time above the target
CLUSTER_DOWNSCALE_S = 600.0  # and removed after this time below it: long, because its conversations must move
CLUSTER_CHECK_S = 2.0  # between two health checks; a replica found dead is replaced
CLUSTER_TRIES = 3  # replicas that one prompt is tried on

# Doctor
DISK_LOW_BYTES = 1_000_000_000  # less free disk space than this causes a warning
MODEL_OVERHEAD_BYTES = 600_000_000  # the vision encoder's work space and the program itself
UNPACKED_MODEL_OVERHEAD_BYTES = 250_000_000  # the same with packed=False (docs/benchmarks.md, "Memory on a phone")

# App lock
PIN_DIGITS = (4, 12)  # minimum and maximum
PIN_ROUNDS = 300_000  # of the hash: about a third of a second on a phone
PIN_TRIES = 5  # wrong PINs before a pause
PIN_PAUSE_S = 30  # the first pause; each later one is twice as long
PIN_PAUSE_MOST_S = 3600
LOCK_AFTER_S = 60  # in the background; longer than it takes to choose a picture

# Speed test, by the protocol of the paper's table
SPEED_ANSWER_TOKENS = 64

# `impchat bench`: default rounds. One round of "chat" has ten turns and takes minutes, because its questions are typed.
BENCH_ROUNDS = {"table": 3, "chat": 1, "users": 3, "peers": 3}

# Phone
MOBILE_PORT = 7862  # of `impchat mobile`, the app in a browser
MOBILE_UPDATE_S = 0.05  # between two updates of a growing answer: at most 20 per second
MOBILE_KV_STATES_BYTES = 512 * 1024 * 1024  # a phone's storage is smaller
MOBILE_SLOTS = 1  # one conversation at a time halves the memory of the KV cache
MOBILE_MESSAGES = 100  # shown at once; earlier ones on request
MOBILE_RETURN_S = 3600  # a conversation left less than this ago is opened again at the next start
MOBILE_MEMORY_LOW_BYTES = 250_000_000  # with less free memory than this, an idle model is unloaded
MOBILE_MEMORY_CHECK_S = 5.0
MOBILE_CONTEXTS = (512, 1024, 1536, 2048, 3072, 4096)  # choices offered, up to the context length of the model
