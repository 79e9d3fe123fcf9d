//! OpenAI's API for text and embeddings: <https://platform.openai.com/docs/api-reference>; and the text that a model is
//! asked for, by this protocol or another.

mod answer;
mod ask;
mod chat;
mod choices;
mod completion;
mod embedding;
mod fault;
mod fields;
mod generation;
mod listing;
mod passed;
mod stop;
mod triton;
mod upstream;

pub use answer::{Form, Usage, Writer, whole};
pub use ask::{Ask, Terms, column, stops_of};
pub use choices::{Choices, Heard};
pub use embedding::{EmbeddingRequest, Encoding, embeddings};
pub use fault::{Fault, error_body, is_error_body, refusal_body, wrong_task};
pub use generation::Generation;
pub use listing::{Listed, model_entry, model_list};
pub use passed::{Passage, Passed, PassedRow};
pub use stop::{Search, Stops};
pub use triton::TextOutput;
pub use upstream::{Chunk, chunk, embedding_question, failure_words, question, shares, text_input, vectors};
