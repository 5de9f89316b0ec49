//! Memory with guards: rows past the live ones, and sentinels between allocations.

use engine_core::backend::{Backend, DType, Element, Tensor};
use engine_core::reference::Numerics;

use super::{Output, Profile, Stop};

/// Rows past the live ones of every tensor.
const GUARD_ROWS: usize = 3;
const SENTINEL: [u32; 16] = [0xDEAD_BEEF; 16];

/// A backend, its stream, and the sentinels around everything allocated.
#[derive(Debug)]
pub struct Rig<'a, B: Backend> {
    /// The backend under test.
    pub backend: &'a B,
    /// Its stream.
    pub stream: B::Stream,
    profile: &'a Profile,
    sentinels: Vec<Tensor<B::Buffer, u32>>,
}

/// A tensor with guard rows, and its bytes before the op.
#[derive(Debug)]
pub struct Guarded<Buf, E> {
    /// The tensor, with its live rows set.
    pub tensor: Tensor<Buf, E>,
    name: &'static str,
    before: Vec<u8>,
}

impl<'a, B: Backend> Rig<'a, B> {
    /// A rig with its first sentinel.
    ///
    /// # Errors
    /// From the backend.
    pub fn new(backend: &'a B, profile: &'a Profile) -> Result<Self, Stop> {
        let mut rig = Self { backend, stream: backend.stream()?, profile, sentinels: Vec::new() };
        rig.add_sentinel()?;
        Ok(rig)
    }

    /// What the backend rounds.
    pub fn numerics(&self) -> Numerics {
        self.profile.numerics
    }

    fn add_sentinel(&mut self) -> Result<(), Stop> {
        let sentinel = Tensor::from_slice(self.backend, &mut self.stream, SENTINEL.len(), &SENTINEL)?;
        self.sentinels.push(sentinel);
        Ok(())
    }

    /// A tensor that an op reads, or reads and writes: `data` in the live rows, poison beyond.
    ///
    /// # Errors
    /// From the backend.
    pub fn input<E: Element>(
        &mut self,
        name: &'static str,
        cols: usize,
        data: &[E],
    ) -> Result<Guarded<B::Buffer, E>, Stop> {
        let rows = data.len() / cols;
        let mut values = poison::<E>((rows + GUARD_ROWS) * cols);
        values[..data.len()].copy_from_slice(data);
        self.guarded(name, (rows, cols), &values)
    }

    /// Activations that an op reads, or reads and writes.
    ///
    /// # Errors
    /// From the backend.
    pub fn act_input(
        &mut self,
        name: &'static str,
        cols: usize,
        data: &[f32],
    ) -> Result<Guarded<B::Buffer, B::Act>, Stop> {
        let data: Vec<B::Act> = data.iter().map(|v| B::Act::from_f32(*v)).collect();
        self.input(name, cols, &data)
    }

    /// A tensor that an op writes: poison everywhere.
    ///
    /// # Errors
    /// From the backend.
    pub fn output<E: Element>(
        &mut self,
        name: &'static str,
        rows: usize,
        cols: usize,
    ) -> Result<Guarded<B::Buffer, E>, Stop> {
        self.guarded(name, (rows, cols), &poison::<E>((rows + GUARD_ROWS) * cols))
    }

    fn guarded<E: Element>(
        &mut self,
        name: &'static str,
        (rows, cols): (usize, usize),
        values: &[E],
    ) -> Result<Guarded<B::Buffer, E>, Stop> {
        let mut tensor = Tensor::from_slice(self.backend, &mut self.stream, cols, values)?;
        tensor.set_rows(rows);
        self.add_sentinel()?;
        Ok(Guarded { tensor, name, before: bytemuck::cast_slice(values).to_vec() })
    }

    fn bytes<E: Element>(&mut self, tensor: &Tensor<B::Buffer, E>) -> Result<Vec<u8>, Stop> {
        let mut bytes = vec![0; tensor.capacity() * tensor.cols() * size_of::<E>()];
        self.backend.read(&mut self.stream, tensor.buffer(), 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Checks that no byte of an input has changed.
    ///
    /// # Errors
    /// [`Stop::Failed`] with the first row that has.
    pub fn expect_unchanged<E: Element>(&mut self, guarded: &Guarded<B::Buffer, E>) -> Result<(), Stop> {
        let bytes = self.bytes(&guarded.tensor)?;
        let row_bytes = guarded.tensor.cols() * size_of::<E>();
        match bytes.iter().zip(&guarded.before).position(|(now, before)| now != before) {
            None => Ok(()),
            Some(at) => Err(Stop::Failed(format!("input {} was written, row {}", guarded.name, at / row_bytes))),
        }
    }

    /// The live rows of an output; checks that the guard rows still hold their poison.
    ///
    /// # Errors
    /// [`Stop::Failed`] with the first guard row that was written.
    pub fn values<E: Element>(&mut self, guarded: &Guarded<B::Buffer, E>) -> Result<Vec<E>, Stop> {
        let bytes = self.bytes(&guarded.tensor)?;
        let row_bytes = guarded.tensor.cols() * size_of::<E>();
        let live = guarded.tensor.rows() * row_bytes;
        if let Some(at) = bytes[live..].iter().zip(&guarded.before[live..]).position(|(now, before)| now != before) {
            let (row, rows) = ((live + at) / row_bytes, guarded.tensor.rows());
            return Err(Stop::Failed(format!("{}: row {row} was written, {rows} rows are live", guarded.name)));
        }
        Ok(bytemuck::pod_collect_to_vec(&bytes[..live]))
    }

    /// As [`Rig::values`], as an [`Output`].
    ///
    /// # Errors
    /// As [`Rig::values`].
    pub fn read<E: Element>(&mut self, guarded: &Guarded<B::Buffer, E>) -> Result<Output, Stop> {
        let values = self.values(guarded)?.into_iter().map(E::to_f32).collect();
        Ok(Output::new(guarded.name, guarded.tensor.cols(), values))
    }

    /// Checks the sentinels between all allocations.
    ///
    /// # Errors
    /// [`Stop::Failed`] with the sentinel that was overwritten.
    pub fn finish(mut self) -> Result<(), Stop> {
        let mut values = Vec::new();
        for (i, sentinel) in self.sentinels.iter().enumerate() {
            sentinel.read(self.backend, &mut self.stream, &mut values)?;
            if values != SENTINEL {
                return Err(Stop::Failed(format!("memory beside allocation {i} was written")));
            }
        }
        Ok(())
    }
}

/// Values that no op yields and that spoil what is computed from them: quiet NaNs, and ids out of every range.
fn poison<E: Element>(len: usize) -> Vec<E> {
    let word: &[u8] = match E::DTYPE {
        DType::F32 => &0x7FE5_A5A5u32.to_ne_bytes(),
        DType::Bf16 => &0x7FE5u16.to_ne_bytes(),
        DType::U32 => &0xA5A5_A5A5u32.to_ne_bytes(),
    };
    vec![bytemuck::pod_read_unaligned(word); len]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use engine_core::reference::ReferenceBackend;
    use half::bf16;

    use super::*;

    fn with_rig(test: impl FnOnce(&mut Rig<'_, ReferenceBackend>)) -> Result<(), Stop> {
        let (backend, profile) = (ReferenceBackend::new(Numerics::default()), Profile::new("rig", Numerics::default()));
        let mut rig = Rig::new(&backend, &profile)?;
        test(&mut rig);
        rig.finish()
    }

    #[test]
    fn poison_is_no_number_and_no_id() {
        assert!(poison::<f32>(1)[0].is_nan() && poison::<bf16>(1)[0].is_nan());
        assert!(poison::<u32>(1)[0] > 1 << 31);
    }

    #[test]
    fn a_written_guard_row_is_found_in_every_element_type() {
        fn written<E: Element>() -> Stop {
            let mut found = None;
            with_rig(|rig| {
                let mut out = rig.output::<E>("out", 2, 4).unwrap();
                let live = vec![E::from_f32(1.0); 8];
                out.tensor.write(rig.backend, &mut rig.stream, &live).unwrap();
                assert_eq!(rig.read(&out).unwrap().values, [1.0; 8]);
                let at = 9 * size_of::<E>();
                rig.backend.write(&mut rig.stream, out.tensor.buffer_mut(), at, &[0]).unwrap();
                found = rig.values(&out).err();
            })
            .unwrap();
            found.unwrap()
        }
        let expected = Stop::Failed("out: row 2 was written, 2 rows are live".into());
        assert_eq!([written::<f32>(), written::<bf16>(), written::<u32>()], [(); 3].map(|()| expected.clone()));
    }

    #[test]
    fn a_written_input_is_found() {
        with_rig(|rig| {
            let mut x = rig.input("x", 2, &[1u32, 2, 3, 4]).unwrap();
            rig.expect_unchanged(&x).unwrap();
            rig.backend.write(&mut rig.stream, x.tensor.buffer_mut(), 8, &[9]).unwrap();
            assert_eq!(rig.expect_unchanged(&x), Err(Stop::Failed("input x was written, row 1".into())));
        })
        .unwrap();
    }

    #[test]
    fn a_written_sentinel_is_found() {
        let result = with_rig(|rig| {
            rig.output::<f32>("out", 1, 1).unwrap();
            rig.backend.write(&mut rig.stream, rig.sentinels[1].buffer_mut(), 5, &[0]).unwrap();
        });
        assert_eq!(result, Err(Stop::Failed("memory beside allocation 1 was written".into())));
    }
}
