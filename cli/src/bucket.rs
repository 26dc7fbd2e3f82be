//! `s3://BUCKET/KEY`: a file of a storage that speaks S3, as something to lend.

use runtime::Lend;

use crate::advice::CliError;

/// A file in a bucket. Where that is, and who may read it, is taken from where every tool for S3
/// looks: `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` and the like, and `~/.aws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    bucket: String,
    key: String,
}

impl Object {
    /// What `s3://` names, if it is that.
    pub(crate) fn read(word: &str) -> Option<Result<Self, CliError>> {
        let named = word.strip_prefix("s3://")?;
        Some(match named.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() && !key.ends_with('/') => {
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => Err(CliError::Usage(format!("{word} is no file: s3://BUCKET/KEY"))),
        })
    }
}

#[cfg(feature = "opendal")]
impl Object {
    /// To be read: by the exporter itself, with a presigned URL, unless the storage is one of this
    /// host.
    pub(crate) async fn source(&self) -> Result<Lend, CliError> {
        Ok(self.adapter()?.source().await?)
    }

    /// To be written.
    pub(crate) fn sink(&self) -> Result<Lend, CliError> {
        Ok(self.adapter()?.sink()?)
    }

    fn adapter(&self) -> Result<actors::OpendalAdapter, CliError> {
        let settings = [("bucket".to_owned(), self.bucket.clone())].into();
        let operator = actors::open_operator("s3", settings)?;
        Ok(actors::OpendalAdapter::new(operator, &self.key))
    }
}

#[cfg(not(feature = "opendal"))]
impl Object {
    #[expect(clippy::unused_async, reason = "as it is where it does something")]
    pub(crate) async fn source(&self) -> Result<Lend, CliError> {
        self.sink()
    }

    pub(crate) fn sink(&self) -> Result<Lend, CliError> {
        let Self { bucket, key } = self;
        let text = format!("s3://{bucket}/{key}: this jmp-bus was built without `opendal`");
        Err(CliError::Usage(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_key_are_named() {
        let object = Object::read("s3://images/rpi4/disk.img.xz").unwrap().unwrap();
        assert_eq!((&*object.bucket, &*object.key), ("images", "rpi4/disk.img.xz"));
        for bad in ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://b/dir/"] {
            let said = Object::read(bad).unwrap().unwrap_err().to_string();
            assert!(said.contains("s3://BUCKET/KEY"), "{bad}: {said}");
        }
        assert!(Object::read("disk.img").is_none());
    }
}
