"""The families of the image-LLMs in `ports/` that the default does not fit."""

from collections.abc import Sequence

from linvt.image_llms.image_llm_family import ImageLLMFamily


class MolmoFamily(ImageLLMFamily):
    """
    Molmo adds visual tokens to the embedding of their placeholder, and its `get_image_features` returns the sum, which
    LinVT can put into the prompt. Video tokens are averages of such sums, so they hold the embedding once, like the
    tokens of an image. A frame is the view of a whole image: no crops, and nothing in it counts as padding.
    """

    def words_in_frames(self) -> Sequence[int]:
        return (self.image_token_id(),)


class XGenMMFamily(ImageLLMFamily):
    """
    xGen-MM: a Perceiver makes the tokens of a frame, so they form no grid.

    Where it reads the prompt (r-v1), frames are encoded with `config.default_prompt_ids` in place of it, and so are
    images beside a video: V must not depend on a question, or it could not be computed once and kept.
    """

    def token_grid(self, num_tokens: int, height: int, width: int) -> tuple[int, int]:
        return 1, num_tokens

    def words_in_frames(self) -> Sequence[int]:
        config = self.image_llm.config
        return config.default_prompt_ids or () if config.reads_prompt else ()
