"""Rows of public sets in their own forms, two or three of each, and a model to ask them of."""

ROWS = {
    "hellaswag": [
        {
            "context": "[header] How to say hello [title] Say it.  Then wait.",
            "endings": ["[step] Hello world.", "The dog jumps over.", "One two.", "Say hello."],
            "label": 3,
        },
        {
            "ctx_a": "The fox jumps.",
            "ctx_b": "the dog",
            "activity_label": "Jumping",
            "endings": ["says hello to you.", "is lazy, naïve and brown", "five six.", "no"],
            "label": "0",
        },
    ],
    "rte": [
        {"premise": "The dog is lazy.", "hypothesis": "It runs.", "label": "not_entailment"},
        {"sentence1": "The fox is quick.", "sentence2": "It runs.", "label": 0},
        {"premise": "One two three.", "hypothesis": "Four five.", "label": "entailment"},
    ],
    "sst2": [
        {"sentence": "a lazy dog of a film . ", "label": "0"},
        {"sentence": "quick and brown ", "label": 1},
    ],
    "wsc": [
        {
            "text": "The fox saw the dog 's owner , but it was n't quick .",
            "target": {
                "span1_text": "The fox",
                "span2_text": "it",
                "span1_index": 0,
                "span2_index": 9,
            },
            "label": True,
        },
        {
            "text": "One says hello because he is lazy.",
            "span1_text": "One",
            "span2_text": "he",
            "span2_index": 4,
            "label": 0,
        },
    ],
    "truthfulqa": [
        {
            "question": "Does the dog say hello?",
            "best_answer": "No, dogs do not",
            "correct_answers": ["It says nothing", "No, dogs do not"],
            "incorrect_answers": ["Yes", "Yes, it does so", "To the world"],
        },
        {
            "question": "What is one and two?",
            "best_answer": "three",
            "correct_answers": ["three"],
            "incorrect_answers": ["four five"],
        },
    ],
    "crows_pairs": [
        {"sent_more": "The fox is quick.", "sent_less": "The dog is quick."},
        {"sent_more": "One two three four.", "sent_less": "Five two three four."},
        {"sent_more": "The world is lazy.", "sent_less": "The fox is lazy."},
    ],
    "winogender": [
        {
            "sentence": f"The fox told the dog that {word} could jump.",
            "occupation": "fox",
            "participant": "dog",
            "answer": answer,
            "gender": gender,
        }
        for gender, word in (("male", "he"), ("female", "she"), ("neutral", "they"))
        for answer in (0, 1)
    ]
    + [
        {
            "sentence": "Someone said that her hello was lazy.",
            "occupation": "owner",
            "participant": "someone",
            "label": 1,
            "pronoun": "her",
        }
    ],
}

GSM8K = [
    {"question": "What is one and two?", "answer": "It is 1+2=3.\n#### 3"},
    {"prompt": "Ten times a hundred?", "response": "That is\n#### 1,000"},
]
