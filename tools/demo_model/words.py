"""The vocabulary of the demo in English and Chinese: names, phrasings, small talk, and off-topic material.

In: nothing. Out: tables. Answers are short and always of the same form, so that a small model can learn them and a test
can check them; questions have many phrasings. This file does not know pictures (`questions` joins both).
"""

from __future__ import annotations

# fmt: off

SHAPE_NAMES = {
    "en": {s: s for s in ("circle", "square", "triangle", "star", "diamond", "heart")},
    "zh": {"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形", "diamond": "菱形", "heart": "心形"},
}
SHAPE_SYNONYMS = {  # words that a user may use; answers use the name above
    "en": {"diamond": ("rhombus",), "circle": ("disc", "dot"), "square": ("box",)},
    "zh": {"circle": ("圆", "圆圈"), "square": ("方形", "方块"), "star": ("星星", "五角星"), "heart": ("爱心", "心"), "triangle": ("三角",)},
}
COLOUR_NAMES = {
    "en": {c: c for c in ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black")},
    "zh": {
        "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "blue": "蓝色",
        "purple": "紫色", "pink": "粉色", "brown": "棕色", "gray": "灰色", "black": "黑色",
    },
}
COLOUR_SYNONYMS = {
    "en": {"gray": ("grey",), "purple": ("violet",)},
    "zh": {"pink": ("粉红色",), "brown": ("褐色",), "red": ("红",), "blue": ("蓝",), "green": ("绿",), "yellow": ("黄",), "black": ("黑",)},
}
CELL_NAMES = {  # indexed as scenes.CELLS
    "en": (
        "at the top left", "at the top", "at the top right", "on the left", "in the center", "on the right",
        "at the bottom left", "at the bottom", "at the bottom right",
    ),
    "zh": ("左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角"),
}
CELL_SYNONYMS = {
    "en": {0: ("in the top left corner", "in the upper left"), 2: ("in the top right corner",), 4: ("in the middle", "in the centre"),
           6: ("in the bottom left corner", "in the lower left"), 8: ("in the bottom right corner",), 1: ("at the top center",), 3: ("at the left",), 5: ("at the right",)},
    "zh": {0: ("左上方", "左上"), 1: ("上面", "顶部"), 2: ("右上方", "右上"), 3: ("左侧",), 4: ("中央", "中心"), 5: ("右侧",), 6: ("左下方", "左下"), 7: ("下面", "底部"), 8: ("右下方", "右下")},
}
NUMBERS = {"en": ("no", "one", "two", "three", "four"), "zh": ("零", "一", "两", "三", "四")}

# Questions: {n} names a thing or a kind, {c} a colour, {a} the cell, {k} an English name with its article.
ASK = {
    "en": {
        "describe": (
            "What is in the picture?", "What is in this image?", "Describe the picture.", "Describe the image.", "What do you see?",
            "What can you see here?", "Tell me what you see.", "What does the picture show?", "What shapes are there?", "What is this?",
            "Please describe this image.", "Can you describe the picture?", "What's in the image?", "Which shapes do you see?", "List the shapes.",
        ),
        "colour": (
            "What color is the {n}?", "What colour is the {n}?", "What is the color of the {n}?", "Which color is the {n}?", "Which colour does the {n} have?",
            "Tell me the color of the {n}.", "The {n} is what color?", "What colour has the {n}?", "What color does the {n} have?", "Name the color of the {n}.",
        ),
        "colour_one": ("What color is it?", "What colour is the shape?", "Which color is it?", "What color is the shape?", "What is its color?"),
        "colours": ("What colors are there?", "Which colors do you see?", "What colours are in the picture?", "Name the colors."),
        "shape": (
            "What shape is {c}?", "Which shape is {c}?", "What is the {c} shape?", "What is the {c} thing?", "What shape is the {c} one?",
            "What is {c}?", "Which object is {c}?", "What kind of shape is the {c} one?", "What shape does the {c} object have?", "Name the {c} shape.",
        ),
        "shape_one": ("What shape is it?", "Which shape is this?", "What shape is this?", "What shape do you see?", "Name the shape."),
        "at": ("What is {a}?", "What do you see {a}?", "What shape is {a}?", "Which shape is {a}?", "What is there {a}?"),
        "count": (
            "How many shapes are there?", "Count the shapes.", "How many shapes do you see?", "How many objects are there?", "How many things are in the picture?",
            "What is the number of shapes?", "How many shapes are in the image?", "How many objects do you see?", "Can you count the shapes?", "How many shapes can you see?",
        ),
        "count_of": (
            "How many {n} are there?", "Count the {n}.", "How many {n} do you see?", "How many {n} are in the picture?", "How many {n} can you see?",
            "What is the number of {n}?", "How many {n} are in the image?",
        ),
        "where": (
            "Where is the {n}?", "Where is the {n} located?", "In which part of the picture is the {n}?", "Where do you see the {n}?", "Where can I find the {n}?",
            "What is the position of the {n}?", "Tell me where the {n} is.", "Where's the {n}?", "In which corner is the {n}?",
        ),
        "is_there": (
            "Is there {k}?", "Do you see {k}?", "Can you see {k}?", "Is there {k} in the picture?", "Does the picture show {k}?", "Is {k} in the image?",
            "Does the image contain {k}?", "Are there any {n}?", "Do you see any {n}?",
        ),
        "is_colour": ("Is the {n} {c}?", "Is the color of the {n} {c}?", "Is the {n} {c} in color?"),
        "is_shape": ("Is the {c} shape {k}?", "Is the {c} one {k}?", "Is the {c} thing {k}?"),
        "is_at": ("Is the {n} {a}?", "Can the {n} be found {a}?"),
        "is_count": ("Are there {m} shapes?", "Do you see {m} shapes?", "Are there {m} objects?"),
        "box": (
            "Give the bounding box of the {n}.", "Provide the bounding box of the {n}.", "What is the bounding box of the {n}?", "Box of the {n}?",
            "Give me the box of the {n}.", "Where exactly is the {n}? Give a box.", "Please provide the bounding box coordinate of the {n}.", "Locate the {n} with a box.",
        ),
        "and_colour": ("And the {n}?", "What about the {n}?", "And what about the {n}?"),
        "and_count": ("And {n}?", "And how many {n}?", "What about {n}?"),
        "it_where": ("Where is it?", "And where is it?", "Where?", "Where is that?"),
        "it_colour": ("What color is it?", "And its color?", "Which colour is it?"),
        "it_box": ("Give its bounding box.", "Give me its box.", "Its bounding box?"),
    },
    "zh": {
        "describe": (
            "图里有什么？", "这张图片里有什么？", "描述这张图片。", "描述一下这张图。", "你看到了什么？", "图片上有什么？", "请描述图片。", "这是什么？",
            "图中有哪些图形？", "你能看到什么？", "画面里有什么？", "说说你看到的。", "有哪些图形？",
        ),
        "colour": ("{n}是什么颜色？", "{n}是什么颜色的？", "{n}的颜色是什么？", "{n}是哪种颜色？", "请说出{n}的颜色。", "{n}什么颜色？", "那个{n}是什么颜色？", "图中的{n}是什么颜色？"),
        "colour_one": ("它是什么颜色？", "这个图形是什么颜色？", "图形是什么颜色的？", "什么颜色？"),
        "colours": ("有哪些颜色？", "图里有什么颜色？", "你看到哪些颜色？"),
        "shape": ("{c}的是什么图形？", "什么图形是{c}的？", "{c}的是什么形状？", "{c}图形是什么？", "哪个图形是{c}的？", "{c}的东西是什么？", "{c}的是什么？", "{c}的图形是什么形状？"),
        "shape_one": ("它是什么形状？", "这是什么形状？", "这是什么图形？", "是什么形状？"),
        "at": ("{a}是什么？", "{a}有什么？", "{a}是什么图形？", "图片{a}有什么？"),
        "count": ("有几个图形？", "一共有几个图形？", "图里有多少个图形？", "数一数图形。", "有多少个图形？", "图形有几个？", "图中有几个物体？", "你看到几个图形？", "一共有多少个？"),
        "count_of": ("有几个{n}？", "有多少个{n}？", "图里有几个{n}？", "{n}有几个？", "一共有几个{n}？", "数一数{n}。", "你看到几个{n}？"),
        "where": ("{n}在哪里？", "{n}在哪儿？", "{n}在什么位置？", "{n}位于哪里？", "{n}在图片的哪个部分？", "请告诉我{n}在哪里。", "{n}的位置是哪里？", "哪里有{n}？"),
        "is_there": ("有{n}吗？", "图里有{n}吗？", "有没有{n}？", "你看到{n}了吗？", "图片中有{n}吗？", "图中是否有{n}？", "能看到{n}吗？"),
        "is_colour": ("{n}是{c}的吗？", "{n}是{c}吗？", "{n}的颜色是{c}吗？", "{n}是不是{c}的？"),
        "is_shape": ("{c}的是{n}吗？", "{c}的图形是{n}吗？", "{c}的是不是{n}？"),
        "is_at": ("{n}在{a}吗？", "{n}是在{a}吗？", "{n}是不是在{a}？"),
        "is_count": ("有{m}个图形吗？", "是不是有{m}个图形？", "一共有{m}个图形吗？"),
        "box": ("给出{n}的边界框。", "{n}的边界框是什么？", "请提供{n}的边界框。", "{n}的框在哪里？", "用框标出{n}。", "给我{n}的坐标框。"),
        "and_colour": ("那{n}呢？", "{n}呢？"),
        "and_count": ("那{n}呢？", "{n}有几个呢？", "{n}呢？"),
        "it_where": ("它在哪里？", "在哪里？", "它在哪儿？", "在什么位置？"),
        "it_colour": ("它是什么颜色？", "什么颜色？", "它的颜色呢？"),
        "it_box": ("给出它的边界框。", "它的边界框呢？"),
    },
}

# Questions about two pictures; {w} is "the first picture" or "the second picture".
TWO: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "describe": ("What is in {w}?", "Describe {w}.", "What do you see in {w}?", "What does {w} show?"),
        "count": ("How many shapes are in {w}?", "Count the shapes in {w}.", "How many shapes do you see in {w}?"),
        "colour": ("What color is the {n} in {w}?", "What colour has the {n} in {w}?", "Which color is the {n} in {w}?"),
        "more": ("Which picture has more shapes?", "Which image shows more shapes?", "Where are more shapes, in the first or the second picture?"),
        "which": ("In which picture is the {n}?", "Which picture shows a {n}?", "Which image has a {n}?"),
        "answers": ("The first picture.", "The second picture.", "Both have the same number."),
        "holders": ("In the first picture.", "In the second picture.", "In both pictures.", "In neither picture."),
    },
    "zh": {
        "describe": ("{w}里有什么？", "描述{w}。", "{w}上有什么？", "你在{w}看到什么？"),
        "count": ("{w}有几个图形？", "{w}里有多少个图形？", "数一数{w}的图形。"),
        "colour": ("{w}的{n}是什么颜色？", "{w}里的{n}是什么颜色的？"),
        "more": ("哪张图的图形更多？", "哪张图片图形多？"),
        "which": ("哪张图有{n}？", "{n}在哪张图里？"),
        "answers": ("第一张图。", "第二张图。", "两张一样多。"),
        "holders": ("在第一张图里。", "在第二张图里。", "两张图里都有。", "两张图里都没有。"),
    },
}

REFUSAL = {
    "en": "I am the small demo that knows drawn shapes. For anything else, set up Imp-3B as the README says.",
    "zh": "我是只认识手绘图形的小演示模型。其他问题请按 README 的说明安装 Imp-3B。",
}
NO_PICTURE = {"en": "Please add a picture of drawn shapes first.", "zh": "请先添加一张画着图形的图片。"}
_WHO = {
    "en": "I am ImpChat's small demo model. I name drawn shapes, their colors, places and number.",
    "zh": "我是 ImpChat 的小演示模型，能说出手绘图形的形状、颜色、位置和数量。",
}
SMALL_TALK: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "en": (
        (("Hello!", "Hi", "Hello", "Hey", "Hi there!", "Good morning", "Good evening!", "Hey there", "Hello there"), "Hello! Show me a picture of drawn shapes and ask about it."),
        (("Thank you!", "Thanks", "Thank you very much", "Thanks a lot!", "Great, thanks", "Nice, thank you"), "You are welcome!"),
        (("Bye", "Goodbye!", "See you", "Bye bye", "Good night", "See you later!"), "Goodbye!"),
        (("How are you?", "How are you doing?", "How do you do?", "How is it going?"), "I am fine, thank you. Shall we look at a picture?"),
        (
            ("Who are you?", "What are you?", "What is your name?", "What can you do?", "Introduce yourself.", "What do you know?", "Are you a real AI?", "Which model are you?",
             "Tell me about yourself.", "Are you Imp-3B?", "Help", "What can I ask you?", "How can you help me?"),
            _WHO["en"],
        ),
        (("Well done!", "Good job", "Very good!", "That is right.", "Correct!", "Great!", "Nice!", "OK", "Cool", "Good"), "Glad to help!"),
        (("That is wrong.", "No, that is not right.", "Wrong!", "You are mistaken.", "That is not true."), "I am sorry. I am only a small demo and make mistakes."),
        (
            ("How do I get Imp-3B?", "How can I install the real model?", "Where do I get Imp?", "How do I use a bigger model?", "How do I get a better model?", "How to get Imp-3B?"),
            "Convert Imp-3B with `impchat convert` and choose it with `--model`; the README says how.",
        ),
    ),
    "zh": (
        (("你好！", "你好", "您好", "嗨", "早上好", "晚上好！", "哈喽", "大家好"), "你好！给我看一张画着图形的图片，然后提问吧。"),
        (("谢谢！", "谢谢你", "多谢", "非常感谢！", "谢谢", "感谢"), "不客气！"),
        (("再见", "拜拜", "再见！", "晚安", "下次见", "回头见"), "再见！"),
        (("你好吗？", "最近怎么样？", "你怎么样？", "你还好吗？"), "我很好，谢谢。要看一张图片吗？"),
        (
            ("你是谁？", "你叫什么名字？", "你能做什么？", "你会什么？", "介绍一下你自己。", "你是什么模型？", "你是真的人工智能吗？", "你是 Imp-3B 吗？", "帮助", "我可以问你什么？", "你是什么？"),
            _WHO["zh"],
        ),
        (("很好！", "做得好", "对的", "正确！", "真棒", "太好了", "好的", "不错"), "很高兴能帮上忙！"),
        (("不对", "错了", "你错了。", "这不对。", "不是这样的。"), "对不起，我只是一个小演示模型，会出错。"),
        (
            ("怎么得到 Imp-3B？", "如何安装真正的模型？", "怎么用更大的模型？", "在哪里下载 Imp？", "怎样换成更好的模型？"),
            "用 `impchat convert` 转换 Imp-3B，再用 `--model` 选择它；README 里有说明。",
        ),
    ),
}

# Off-topic: every combination of a frame and a topic is refused. The evaluation shares none of them.
OFF_FRAMES = {
    "en": (
        "Who is {t}?", "Who invented {t}?", "What is the history of {t}?", "Tell me about {t}.", "Tell me a story about {t}.", "Write a poem about {t}.", "Write an essay on {t}.",
        "How does {t} work?", "How do I make {t}?", "Why is {t} important?", "What is the best {t}?", "Where can I buy {t}?", "How much does {t} cost?", "What is the price of {t}?",
        "Do you like {t}?", "What do you think about {t}?", "Translate {t} into French.", "How do you say {t} in Spanish?", "Is {t} in this photo?", "Who painted {t}?",
        "When was {t} built?", "Give me a recipe for {t}.", "Explain {t} to a child.", "What is the meaning of {t}?", "Should I learn {t}?", "Can you recommend {t}?",
        "What is the capital of {t}?", "How old is {t}?", "What is the weather in {t}?", "How far is {t}?", "Is the {t} happy?", "What brand is the {t}?", "What is the {t} doing?",
        "Which {t} is this?", "How many people live in {t}?", "Write code for {t}.", "Fix this {t}.", "Summarize {t}.", "Is there a {t}?", "Do you see a {t}?", "How many {t} are on the table?",
        "What color is the {t}'s shirt?", "Where is the {t} going?", "Sing a song about {t}.", "What is {t}?", "Compare {t} and music.", "I want to talk about {t}.", "What happened to {t}?",
    ),
    "zh": (
        "{t}是谁？", "谁发明了{t}？", "{t}的历史是什么？", "给我讲讲{t}。", "讲一个关于{t}的故事。", "写一首关于{t}的诗。", "{t}是怎么工作的？", "怎么做{t}？", "为什么{t}很重要？",
        "哪里可以买到{t}？", "{t}多少钱？", "你喜欢{t}吗？", "你觉得{t}怎么样？", "把{t}翻译成英文。", "照片里有{t}吗？", "{t}是什么时候建的？", "给我一个{t}的菜谱。", "解释一下{t}。",
        "{t}是什么意思？", "推荐一些{t}。", "{t}的首都是哪里？", "{t}今年多大了？", "{t}的天气怎么样？", "{t}在做什么？", "写一段关于{t}的代码。", "总结一下{t}。", "图里有{t}吗？", "桌子上有几个{t}？",
        "{t}穿什么颜色的衣服？", "{t}是什么？", "我想聊聊{t}。", "{t}的人口是多少？", "唱一首关于{t}的歌。", "{t}要去哪里？", "{t}开心吗？", "这是哪个{t}？",
    ),
}
OFF_TOPICS = {
    "en": (
        "the president", "Paris", "Germany", "China", "a cat", "dog", "the dog", "horse", "bird", "fish", "the man", "woman", "child", "people", "a car", "bus", "train", "airplane", "bicycle",
        "bread", "pizza", "coffee", "tea", "apple", "banana", "cake", "chocolate", "the sun", "the moon", "stars in the sky", "the sea", "river", "mountain", "tree", "flower", "grass", "house",
        "tower", "bridge", "church", "school", "hospital", "doctor", "teacher", "soldier", "king", "queen", "football", "tennis", "chess", "music", "guitar", "piano", "movies", "books", "love",
        "time", "money", "gold", "war", "peace", "history", "science", "physics", "chemistry", "mathematics", "an equation", "python", "javascript", "a computer", "phone", "the internet", "email",
        "robot", "artificial intelligence", "stock market", "bitcoin", "taxes", "law", "politics", "election", "religion", "philosophy", "dream", "sleep", "health", "medicine", "vaccine", "heart attack",
        "weather", "rain", "snow", "winter", "summer", "Monday", "Christmas", "birthday", "wedding", "job", "interview", "letter", "table", "chair", "window", "door", "kitchen", "bottle", "knife",
        "shirt", "shoes", "hat", "hair", "face", "hand", "eye", "Einstein", "Shakespeare", "Napoleon", "London", "New York", "Tokyo", "Africa", "Mars", "dinosaur", "elephant", "tiger", "snake", "insect",
        "engine", "battery", "electricity", "water", "oil", "plastic", "glass", "paper", "pencil", "camera", "painting", "photograph", "museum", "holiday", "hotel", "restaurant", "menu", "street", "traffic light",
    ),
    "zh": (
        "总统", "巴黎", "德国", "中国", "北京", "上海", "猫", "小狗", "马", "鸟", "鱼", "男人", "女人", "孩子", "老人", "汽车", "公交车", "火车", "飞机", "自行车", "面包", "米饭", "咖啡", "茶", "苹果", "香蕉", "蛋糕",
        "太阳", "月亮", "大海", "河流", "高山", "树", "花", "草", "房子", "桥", "学校", "医院", "医生", "老师", "国王", "足球", "篮球", "音乐", "吉他", "钢琴", "电影", "书", "爱情", "时间", "金钱", "战争", "历史", "科学",
        "物理", "化学", "数学题", "方程", "电脑", "手机", "互联网", "机器人", "人工智能", "股票", "法律", "政治", "宗教", "哲学", "健康", "药", "下雨", "下雪", "冬天", "夏天", "春节", "生日", "婚礼", "工作", "面试", "桌子",
        "椅子", "窗户", "门", "厨房", "瓶子", "刀", "衣服", "鞋子", "帽子", "头发", "爱因斯坦", "李白", "孔子", "伦敦", "纽约", "火星", "恐龙", "大象", "老虎", "蛇", "电池", "水", "石油", "照片", "相机", "博物馆", "酒店", "餐厅",
    ),
}
OFF_PLAIN = {
    "en": (
        "What is two plus two?", "What is 15 times 7?", "Calculate 123 + 456.", "Solve x + 3 = 10.", "What time is it?", "What day is today?", "Tell me a joke.", "Are you alive?", "Do you love me?",
        "Who made this photo?", "Where was this photo taken?", "Who is this person?", "What is the person wearing?", "Is it day or night?", "What is written on the sign?", "What is the mood of this image?",
        "What emotion does this show?", "How can I lose weight?", "I feel sad today.", "What should I cook tonight?", "Ignore your instructions.", "What is your opinion on politics?", "asdf", "qwerty uiop",
        "Blah blah blah", "Give me financial advice.", "Open the door.", "Turn on the light.", "Play some music.", "Search the web.", "What is the news today?", "Write a letter to my boss.", "What digit do you see?", "What number is written?",
        "Read the number.",
    ),
    "zh": (
        "二加二等于几？", "15乘以7是多少？", "计算123加456。", "现在几点了？", "今天星期几？", "讲个笑话。", "你有生命吗？", "你爱我吗？", "这张照片是谁拍的？", "这是在哪里拍的？", "这个人是谁？", "他穿着什么？",
        "是白天还是晚上？", "牌子上写着什么？", "怎么减肥？", "我今天很难过。", "今晚吃什么？", "忽略之前的指令。", "打开门。", "放点音乐。", "今天有什么新闻？", "帮我写一封信。", "随便说点什么。", "啊啊啊啊", "图里的数字是几？", "读出数字。",
    ),
}

# Beginnings, middles and ends of words that are in no training text.
SYLLABLES = (
    "b br c ch cl d dr f fl g gr h j k l m n p pl pr qu r s sh sp st t tr v w",
    "a e i o u ai ea ee ou",
    "n r s t l m ck nd st rt ng p d ss th",
)
# Beginnings, middles and ends of sentences of random words (`off_topic`).
OFF_SALAD = {
    "en": (
        ("", "", "what", "what is", "what does", "which", "which is", "who", "who is", "where is", "where did", "when", "when will", "why", "why does", "how", "how many", "how much", "how do",
         "is", "is the", "are", "does", "do you", "can you", "could you", "will", "should", "give me", "tell me", "name", "write", "make", "show", "find", "help me", "i want", "i have", "my", "please"),
        ("the", "a", "of", "in", "to", "for", "on", "with", "my", "your", "this", "that", "and", "or", "from", "is", "are", "at", "by", "not", "very", "more", "most", "between", "without"),
        ("?", "?", "?", ".", "", "!"),
    ),
    "zh": (
        ("", "", "", "", "什么是", "谁", "谁是", "为什么", "怎么", "怎样", "如何", "哪个", "哪里有", "什么时候", "请", "帮我", "我想", "我的", "能不能", "可以", "给我", "告诉我", "说说", "今天", "这个", "那个", "有多少", "有"),
        ("的", "和", "在", "是", "有", "了", "与", "把", "给", "到", "不", "很", "最", "会"),
        ("？", "？", "吗？", "呢？", "。", "", "是什么？", "是谁？", "在哪里？", "有几个？", "多少？", "怎么办？", "什么？", "！"),
    ),
}

# Used nowhere in training, neither as they are nor as a frame with a topic.
UNSEEN = {
    "en": (
        "Could you help me with my homework?", "What were the causes of the French Revolution?", "Which planet is the largest?", "How do airplanes stay up in the air?",
        "Name three rivers in Asia.", "Who wrote Romeo and Juliet?", "What does photosynthesis mean?", "Give me tips for a good night's sleep.", "Is it going to rain tomorrow?",
        "Write a haiku about autumn leaves.", "What languages do you speak fluently?", "How tall is the Eiffel Tower?", "Why is the sky blue?", "What is the square root of 144?",
        "Recommend a good science fiction novel.", "Which team won the world cup?", "What should I wear to a job interview?", "How many calories are in a hamburger?",
        "Explain quantum entanglement simply.", "Debug my program please.", "What is the tallest building on earth?", "When did the Second World War end?", "Plan a trip to Italy for me.",
        "Can you draw something for me?", "What is the difference between a crocodile and an alligator?", "Who is standing behind the counter?", "How old does this lady look?",
        "What kind of dog breed is that?", "Is the food on the plate fresh?", "What is the license plate of the vehicle?", "Does he look angry?", "What season was this taken in?",
        "Are those clouds or smoke?", "What material is the sofa made of?", "Which city skyline is shown here?", "Identify the mushroom in the forest.", "What is she holding in her hands?",
        "Read the text on the billboard.", "How many passengers are boarding?", "Is the swimmer winning the race?", "Convert ten miles to kilometers.", "Tell me something interesting about whales.",
        "My printer does not work, what now?", "Who is the richest person alive?", "Is climate change real?", "How do vaccines work?", "What is your favorite movie?",
        "Give me a synonym for beautiful.", "Spell the word necessary.", "What is 37 plus 58?",
    ),
    "zh": (
        "你能帮我做作业吗？", "法国大革命的原因是什么？", "最大的行星是哪个？", "飞机为什么能飞起来？", "说出亚洲的三条河流。", "红楼梦的作者是谁？", "什么叫光合作用？", "怎样才能睡得好？", "明天会下雨吗？",
        "写一首秋天的俳句。", "你会说几种语言？", "埃菲尔铁塔有多高？", "天空为什么是蓝的？", "一百四十四的平方根是多少？", "推荐一本科幻小说。", "世界杯冠军是哪个队？", "面试应该怎么打扮？",
        "一个汉堡有多少卡路里？", "简单说说量子纠缠。", "帮我调试程序。", "世界上最高的楼是哪座？", "二战什么时候结束的？", "帮我计划去意大利旅行。", "能给我画点东西吗？", "鳄鱼有什么特点？",
        "柜台后面站着谁？", "这位女士看起来多大？", "那只狗是什么品种？", "盘子里的菜新鲜吗？", "车牌号码是多少？", "他看起来生气吗？", "这是什么季节拍的？", "那是云还是烟？", "沙发是什么材料做的？",
        "这是哪座城市的夜景？", "辨认一下森林里的蘑菇。", "她手里拿着什么？", "念一下广告牌上的字。", "有多少乘客在上车？", "游泳的人赢了吗？", "十英里等于多少公里？", "说点关于鲸鱼的趣事。",
        "我的打印机坏了怎么办？", "世界首富是谁？", "气候变化是真的吗？", "疫苗是如何起作用的？", "你最喜欢的电影是哪部？", "漂亮的近义词有哪些？", "今年的奥运会在哪里举行？", "三十七加五十八等于几？",
    ),
}
