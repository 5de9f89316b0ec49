//! A pass over a step: through the model's layers, or through the MTP module.

use crate::backend::{Backend, StepError, StepMeta};
use crate::model::mtp::MtpStep;
use crate::model::{Model, Observer, Workspace};

/// What is run over a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The model's layers.
    Model,
    /// The MTP module, over the rows of the pass through the model before it.
    Draft,
}

/// A pass with what it works on.
pub(super) struct PassRun<'a, B: Backend> {
    pub(super) pass: Pass,
    pub(super) backend: &'a B,
    pub(super) model: &'a Model<B>,
    pub(super) meta: &'a StepMeta<B::Buffer>,
    pub(super) workspace: &'a mut Workspace<B>,
    /// Ids that may be a best token, or among the highest logits.
    pub(super) num_token_ids: usize,
}

impl<B: Backend> PassRun<'_, B> {
    /// Every row's hidden state.
    pub(super) fn forward(&mut self, stream: &mut B::Stream, observer: Observer<'_, B>) -> Result<(), StepError> {
        let Self { backend, model, meta, .. } = *self;
        let workspace = &mut *self.workspace;
        match self.pass {
            Pass::Model => model.forward(backend, stream, meta, workspace, observer),
            Pass::Draft => {
                let mtp = model.mtp().expect("the caller checks has_mtp");
                mtp.forward(backend, stream, MtpStep { model, meta, workspace }, observer)
            }
        }
    }

    /// Hidden states, and logits and best token of each row in `workspace.logit_rows`; their highest logits too if wanted.
    pub(super) fn forward_to_logits(&mut self, stream: &mut B::Stream, with_top: bool) -> Result<(), StepError> {
        self.forward(stream, Observer::none())?;
        self.model.logits(self.backend, stream, self.workspace)?;
        if with_top {
            self.model.top_logits(self.backend, stream, self.num_token_ids, self.workspace)?;
        }
        self.model.best_tokens(self.backend, stream, self.num_token_ids, self.workspace)
    }

    /// What [`PassRun::forward_to_logits`] leaves on the host, where the work itself was replayed.
    pub(super) fn set_rows(&mut self, with_top: bool) {
        let num_rows = self.workspace.logit_rows.rows();
        self.workspace.set_rows(self.meta.host().num_tokens());
        self.workspace.set_logit_rows(num_rows);
        if with_top {
            self.workspace.top_logits.set_rows(num_rows);
        }
    }
}
